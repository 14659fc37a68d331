/* Blocks of x and z by turns. */
static void $name(const $x *x, const $x *z, $x *y, int32_t outer, int32_t x_block, int32_t z_block)
{
    for (int32_t o = 0; o < outer; o++) {
        for (int32_t k = 0; k < x_block; k++) {
            *y++ = *x++;
        }
        for (int32_t k = 0; k < z_block; k++) {
            *y++ = *z++;
        }
    }
}
