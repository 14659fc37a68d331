/* Blocks of x and z by turns. */
static void concat_signs(const uint32_t *x, const uint32_t *z, uint32_t *y, int32_t outer,
                         int32_t x_block, int32_t z_block)
{
    int32_t i = 0;
    for (int32_t o = 0; o < outer; o++) {
        for (int32_t k = 0; k < x_block; k++) {
            put_sign(y, i++, sign_bit(x, o * x_block + k));
        }
        for (int32_t k = 0; k < z_block; k++) {
            put_sign(y, i++, sign_bit(z, o * z_block + k));
        }
    }
}
