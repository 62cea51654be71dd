//! Names as programmers wrote them.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use cpp_demangle::{DemangleOptions, ParseOptions};

/// A few hundred bytes of mangled name can stand for megabytes: each of its parts may repeat those before it.
const MAX_OUTPUT: usize = 2048;
/// Levels of nesting; keeps a debug build within a thread's usual stack.
const MAX_DEPTH: u32 = 96;
const ELLIPSIS: char = '…';

/// Demangles names of Rust (both schemes; without the hash) and C++; leaves all others alone.
///
/// What would be longer than 2 KiB is cut and ends in `…`.
pub fn demangle(name: &str) -> Cow<'_, str> {
    demangle_rust(name).or_else(|| demangle_cpp(name)).map_or(Cow::Borrowed(name), Cow::Owned)
}

/// `rustc-demangle` limits the depth by itself.
fn demangle_rust(name: &str) -> Option<String> {
    let demangled = rustc_demangle::try_demangle(name).ok()?;
    let mut output = Bounded::default();
    let result = write!(output, "{demangled:#}");
    output.finish(result)
}

fn demangle_cpp(name: &str) -> Option<String> {
    if !name.starts_with("_Z") {
        return None;
    }
    let options = ParseOptions::default().recursion_limit(MAX_DEPTH);
    let symbol = cpp_demangle::BorrowedSymbol::new_with_options(name.as_bytes(), &options).ok()?;
    let mut output = Bounded::default();
    let result = symbol.structured_demangle(&mut output, &DemangleOptions::new().recursion_limit(MAX_DEPTH));
    output.finish(result)
}

/// Text that refuses to grow beyond [`MAX_OUTPUT`].
#[derive(Default)]
struct Bounded {
    text: String,
    full: bool,
}

impl Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = (MAX_OUTPUT - ELLIPSIS.len_utf8()).saturating_sub(self.text.len());
        self.full |= piece.len() > room;
        self.text.push_str(&piece[..piece.floor_char_boundary(room)]);
        if self.full { Err(fmt::Error) } else { Ok(()) }
    }
}

impl Bounded {
    /// The text, unless it was the demangler that gave up.
    fn finish(mut self, result: fmt::Result) -> Option<String> {
        if self.full {
            self.text.push(ELLIPSIS);
        } else {
            result.ok()?;
        }
        Some(self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_mangling_is_known() {
        for (mangled, expected) in [
            ("_RNvCs15kBYyAo9fc_7mycrate7example", "mycrate::example"),
            ("_RINvNtCs8y2IhZbXWLu_4core3ptr13drop_in_placeyEB4_", "core::ptr::drop_in_place::<u64>"),
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE.llvm.42", "core::fmt::Formatter::pad"),
            ("_ZNSt6vectorIiSaIiEE9push_backEOi", "std::vector<int, std::allocator<int> >::push_back(int&&)"),
            ("_ZN3FooC2Ev.cold", "Foo::Foo() [clone .cold]"),
        ] {
            assert_eq!(demangle(mangled), expected);
        }
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in
            ["do_syscall_64", "_start", "__pfx_schedule", "_Z", "_R", "_ZZZZ", "", "ein café", "memset@plt"]
        {
            assert!(matches!(demangle(name), Cow::Borrowed(same) if same == name), "{name}");
        }
    }

    #[test]
    fn output_is_bounded_however_much_a_name_stands_for() {
        // Each parameter is a template of two of the one before it, which is the last but one thing to refer to.
        let mut exploding = String::from("_Z1f1AIiE1BIS0_S0_E");
        for reference in (2..36).step_by(2) {
            let previous = char::from_digit(reference, 36).unwrap().to_ascii_uppercase();
            exploding += &format!("1BIS{previous}_S{previous}_E");
        }
        let text = demangle(&exploding);
        assert!(text.starts_with("f(A<int>, B<A<int>, A<int> >, B<B<A<int>, A<int> >, "), "{text}");
        assert!(text.ends_with(ELLIPSIS) && text.len() <= MAX_OUTPUT, "{}", text.len());
    }

    #[test]
    fn depth_is_bounded() {
        for name in [
            format!("_Z1f{}i", "P".repeat(4000)),
            format!("_Z1f{}", "1AI".repeat(1300)),
            format!("_RMC0{}u", "R".repeat(4000)),
        ] {
            assert!(demangle(&name).len() <= name.len().max(MAX_OUTPUT));
        }
    }

    proptest! {
        #[test]
        fn no_name_is_too_strange(prefix in "(_Z|_ZN|_R|_RNv)?", tail in "[A-Za-z0-9_.$]{0,120}") {
            let name = prefix + &tail;
            prop_assert!(demangle(&name).len() <= MAX_OUTPUT);
        }
    }
}
