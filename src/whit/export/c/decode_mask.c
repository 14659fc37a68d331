/* The next row of a weight of which one bit a position says what is stored. */
static void $name(const uint8_t *mask, $parameters, int32_t row, int32_t columns, int32_t *next,
                  $w *out)
{
    for (int32_t k = 0; k < columns; k++) {
        const int32_t position = row * columns + k;
        const int stored = mask[position >> 3] >> (position & 7) & 1;
        out[k] = stored ? $read($arguments, (*next)++) : 0;
    }
}
