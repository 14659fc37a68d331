/* rint((x * multiplier + offset) / 2^s) in 64 bits, half to even, clamped. */
static void $name(const $x *x, $y *y, const int32_t *multipliers, const int64_t *offsets,
                  int32_t count, int32_t multiplier_step, int32_t offset_step, int32_t inner,
                  int32_t s, int32_t low, int32_t high)
{
    const uint64_t half = UINT64_C(1) << (s - 1);
    for (int32_t c = 0, i = 0; c < count; c++) {
        for (int32_t j = 0; j < inner; j++, i++) {
            const int64_t exact = (int64_t)x[i] * multipliers[c * multiplier_step]
                                  + offsets[c * offset_step];
            const uint64_t bits = (uint64_t)exact;
            /* an arithmetic shift to the right that does not lean on the compiler */
            int64_t whole = exact < 0 ? -1 - (int64_t)(~bits >> s) : (int64_t)(bits >> s);
            const uint64_t rest = bits & (2 * half - 1);
            whole += rest > half || (rest == half && (whole & 1) != 0);
            y[i] = ($y)(whole < low ? low : whole > high ? high : whole);
        }
    }
}
