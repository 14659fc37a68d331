/* One row of a weight with two values stored of every four; the channels lie fastest. */
static void $name(const uint8_t *places, $parameters, int32_t row, int32_t columns, int32_t taps,
                  $w *out)
{
    const int32_t groups = (columns + 3) / 4, channels = columns / taps;
    for (int32_t k = 0; k < columns; k++) {
        out[k] = 0;
    }
    for (int32_t k = 0; k < 2 * groups; k++) {
        const int32_t stored = 2 * row * groups + k;
        const int32_t column = 4 * (k / 2) + (places[stored >> 2] >> 2 * (stored & 3) & 3);
        if (column < columns) {
            out[column % channels * taps + column / channels] = $read($arguments, stored);
        }
    }
}
