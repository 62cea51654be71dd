// Runs in one function that is inlined into a second, and that into a third; marks stand where their lines are told of.

static inline __attribute__((always_inline)) void innermost(volatile unsigned *value)
{
    for (int turn = 0; turn < 1000; turn++)
        *value = *value * 3 + 1; // innermost
}

static inline __attribute__((always_inline)) void between(volatile unsigned *value)
{
    innermost(value); // between
}

__attribute__((noinline)) void outermost(volatile unsigned *value)
{
    between(value); // outermost
}

int main(void)
{
    volatile unsigned value = 1;
    for (;;)
        outermost(&value);
}
