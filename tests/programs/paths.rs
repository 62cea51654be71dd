//! The paths of paths.c in Rust: `path8_3` is called by `path8_4`, and so on up to what `main` calls.

use std::hint::black_box;

macro_rules! path {
    ($leaf:ident $(, $rest:ident)*) => {
        #[inline(never)]
        fn $leaf(n: u64) -> u64 {
            // Alike functions would be folded into one.
            black_box(stringify!($leaf));
            (0..black_box(4000)).fold(n, |sum, round| black_box(sum ^ round))
        }
        levels!($leaf $(, $rest)*);
    };
}

macro_rules! levels {
    ($top:ident) => {};
    ($callee:ident, $caller:ident $(, $rest:ident)*) => {
        #[inline(never)]
        fn $caller(n: u64) -> u64 {
            let text = format!("{n} {}", stringify!($caller));
            black_box($callee(n + 1)) ^ black_box(&text).len() as u64
        }
        levels!($caller $(, $rest)*);
    };
}

path!(path8_0, path8_1, path8_2, path8_3, path8_4, path8_5, path8_6, path8_7);
path!(path16_0, path16_1, path16_2, path16_3, path16_4, path16_5, path16_6, path16_7, path16_8,
    path16_9, path16_10, path16_11, path16_12, path16_13, path16_14, path16_15);
path!(path24_0, path24_1, path24_2, path24_3, path24_4, path24_5, path24_6, path24_7, path24_8,
    path24_9, path24_10, path24_11, path24_12, path24_13, path24_14, path24_15, path24_16, path24_17,
    path24_18, path24_19, path24_20, path24_21, path24_22, path24_23);
path!(path32_0, path32_1, path32_2, path32_3, path32_4, path32_5, path32_6, path32_7, path32_8,
    path32_9, path32_10, path32_11, path32_12, path32_13, path32_14, path32_15, path32_16, path32_17,
    path32_18, path32_19, path32_20, path32_21, path32_22, path32_23, path32_24, path32_25, path32_26,
    path32_27, path32_28, path32_29, path32_30, path32_31);
path!(path40_0, path40_1, path40_2, path40_3, path40_4, path40_5, path40_6, path40_7, path40_8,
    path40_9, path40_10, path40_11, path40_12, path40_13, path40_14, path40_15, path40_16, path40_17,
    path40_18, path40_19, path40_20, path40_21, path40_22, path40_23, path40_24, path40_25, path40_26,
    path40_27, path40_28, path40_29, path40_30, path40_31, path40_32, path40_33, path40_34, path40_35,
    path40_36, path40_37, path40_38, path40_39);

fn main() {
    loop {
        for top in [path8_7, path16_15, path24_23, path32_31, path40_39] {
            black_box(top(black_box(1)));
        }
    }
}
