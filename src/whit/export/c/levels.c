/* low + step * number of thresholds reached. */
static void $name(const $x *x, $y *y, const $t *thresholds, const uint8_t *flipped, int32_t count,
                  int32_t inner, int32_t size, int32_t low, int32_t step)
{
    for (int32_t c = 0, i = 0; c < count; c++, thresholds += size) {
        const int flip = flipped != 0 && (flipped[c >> 3] >> (c & 7) & 1);
        for (int32_t j = 0; j < inner; j++, i++) {
            int32_t reached = 0;
            for (int32_t k = 0; k < size; k++) {
                reached += flip ? x[i] <= thresholds[k] : x[i] >= thresholds[k];
            }
            y[i] = ($y)(low + step * reached);
        }
    }
}
