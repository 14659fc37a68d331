/* ((x + bias) * multiplier + 2^(s-1)) >> s in 64 bits, rounded down and clamped. */
static void $name(const $x *x, $y *y, const int32_t *multipliers, const int32_t *bias,
                  int32_t count, int32_t multiplier_step, int32_t bias_step, int32_t inner,
                  int32_t s, int32_t low, int32_t high)
{
    for (int32_t c = 0, i = 0; c < count; c++) {
        for (int32_t j = 0; j < inner; j++, i++) {
            const int64_t sum = (int64_t)x[i] + bias[c * bias_step];
            const uint64_t product = (uint64_t)sum * (uint64_t)multipliers[c * multiplier_step]
                                     + (UINT64_C(1) << (s - 1));
            /* an arithmetic shift to the right that does not lean on the compiler */
            const int64_t shifted = product >> 63 ? -1 - (int64_t)(~product >> s)
                                                  : (int64_t)(product >> s);
            y[i] = ($y)(shifted < low ? low : shifted > high ? high : shifted);
        }
    }
}
