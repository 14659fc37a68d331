/* Signs are bits, 1 for -1, 32 to a word from the lowest bit up; spare bits are 0. */
static uint32_t sign_bit(const uint32_t *signs, int32_t index)
{
    return signs[index >> 5] >> (index & 31) & 1U;
}
