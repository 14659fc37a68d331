/* Must be called for index 0, 1, 2, ...: the first bit of a word clears the others. */
static void put_sign(uint32_t *signs, int32_t index, uint32_t bit)
{
    if ((index & 31) == 0) {
        signs[index >> 5] = 0;
    }
    signs[index >> 5] |= bit << (index & 31);
}
