/* The number of an entry in $bits bits. */
static float $name(const uint8_t *values, const float *entries, int32_t index)
{
    const int32_t bit = $bits * index;
    return entries[values[bit >> 3] >> (bit & 7) & $mask];
}
