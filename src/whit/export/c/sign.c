/* -1 where x is not >= 0. */
static void $name(const $x *x, uint32_t *y, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        put_sign(y, i, x[i] >= 0 ? 0 : 1);
    }
}
