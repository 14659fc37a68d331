/* Two's complement, one plane of bits for each digit, the sign first. */
static int16_t $name(const uint8_t *values, int32_t planes, int32_t count, int32_t index)
{
    const int32_t plane_bytes = (count + 7) / 8;
    const uint8_t *byte = values + (index >> 3);
    int32_t number = -(*byte >> (index & 7) & 1);
    for (int32_t plane = 1; plane < planes; plane++) {
        byte += plane_bytes;
        number = 2 * number + (*byte >> (index & 7) & 1);
    }
    return (int16_t)number;
}
