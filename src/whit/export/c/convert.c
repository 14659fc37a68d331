/* The same numbers in another type. */
static void $name(const $x *x, $y *y, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        y[i] = ($y)x[i];
    }
}
