/* Two bits: 0 for 0, 1 for +1, 3 for -1. */
static int8_t $name(const uint8_t *values, int32_t index)
{
    const int code = values[index >> 2] >> 2 * (index & 3) & 3;
    return (int8_t)((code & 1) - (code & 2));
}
