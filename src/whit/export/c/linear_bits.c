/* Signs times signs; rows of x that begin inside a word are copied to the row of words first. */
static void $name(const uint32_t *x, const uint32_t *weight, $y *y, int32_t positions,
                  int32_t columns, int32_t rows, uint32_t *copy)
{
    const int32_t width = (columns + 31) / 32;
    for (int32_t p = 0; p < positions; p++) {
        const uint32_t *bits = x + p * width;
        if (copy != 0) {
            copy_bits(x, p * columns, columns, copy);
            bits = copy;
        }
        for (int32_t r = 0; r < rows; r++) {
            *y++ = ($y)dot_bits(bits, weight + r * width, columns);
        }
    }
}
