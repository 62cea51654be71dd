/*
 * The paths of paths.c in C++: Path<8, 3>::run is called by Path<8, 4>::run, by way of a virtual table, with objects to
 * be destroyed and exceptions to be caught on the way.
 */
#include <memory>
#include <string>

static volatile unsigned long sink;

struct Function {
	virtual ~Function() = default;
	virtual long run(long n) = 0;
};

template <int Depth, int Level> struct Path final : Function {
	[[gnu::noinline]] long run(long n) override
	{
		std::unique_ptr<Function> callee = std::make_unique<Path<Depth, Level - 1>>();
		std::string text(Level % 24, 'x');
		for (long round = 0; round < 100; round++)
			sink += round ^ text.size();
		try {
			return callee->run(n + 1) + text.size();
		} catch (const std::string &) {
			return n;
		}
	}
};

template <int Depth> struct Path<Depth, 0> final : Function {
	[[gnu::noinline]] long run(long n) override
	{
		for (long round = 0; round < 40000; round++)
			sink += round ^ n;
		return n;
	}
};

template <int Depth> [[gnu::always_inline]] static inline void begin()
{
	std::unique_ptr<Function> first = std::make_unique<Path<Depth, Depth - 1>>();
	sink += first->run(sink);
}

int main()
{
	for (;;) {
		begin<8>();
		begin<16>();
		begin<24>();
		begin<32>();
		begin<40>();
	}
}
