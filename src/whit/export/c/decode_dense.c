/* One row of a dense weight. */
static void $name($parameters, int32_t row, int32_t columns, $w *out)
{
    for (int32_t k = 0; k < columns; k++) {
        out[k] = $read($arguments, row * columns + k);
    }
}
