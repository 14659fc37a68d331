/* max(x, 0), NaN stays NaN. */
static void $name(const $x *x, $x *y, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        y[i] = x[i] < 0 ? 0 : x[i];
    }
}
