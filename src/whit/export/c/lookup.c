/* table[x], the last entry for what is larger. */
static void lookup(const uint8_t *x, float *y, const float *table, int32_t entries, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        y[i] = table[x[i] < entries ? x[i] : entries - 1];
    }
}
