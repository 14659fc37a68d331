/* +1 where x >= T, in flipped channels where x <= T. */
static void $name(const $x *x, uint32_t *y, const $t *thresholds, const uint8_t *flipped,
                  int32_t count, int32_t inner)
{
    for (int32_t c = 0, i = 0; c < count; c++) {
        const $t threshold = thresholds[c];
        const int flip = flipped != 0 && (flipped[c >> 3] >> (c & 7) & 1);
        for (int32_t j = 0; j < inner; j++, i++) {
            put_sign(y, i, (flip ? x[i] <= threshold : x[i] >= threshold) ? 0 : 1);
        }
    }
}
