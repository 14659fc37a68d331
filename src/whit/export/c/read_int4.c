/* Four bits of two's complement, low half first. */
static int8_t $name(const uint8_t *values, int32_t index)
{
    const int code = values[index >> 1] >> 4 * (index & 1) & 15;
    return (int8_t)(code > 7 ? code - 16 : code);
}
