/* A value as it is stored. */
static $w $name(const $stored *values, int32_t index)
{
    return values[index];
}
