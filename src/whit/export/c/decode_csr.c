/* The next row of a weight stored as count, column numbers and values of each row. */
static void $name(const $index *counts, const $index *numbers, $parameters, int32_t row,
                  int32_t columns, int32_t *next, $w *out)
{
    const int32_t end = *next + (int32_t)counts[row];
    for (int32_t k = 0; k < columns; k++) {
        out[k] = 0;
    }
    for (; *next < end; (*next)++) {
        out[numbers[*next]] = $read($arguments, *next);
    }
}
