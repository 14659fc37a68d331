/* One bit: 1 for -1. */
static int8_t $name(const uint8_t *values, int32_t index)
{
    return values[index >> 3] >> (index & 7) & 1 ? -1 : 1;
}
