/* Five digits of base 3 to a byte, each one more than the value. */
static int8_t $name(const uint8_t *values, int32_t index)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    return (int8_t)(values[index / 5] / powers[index % 5] % 3 - 1);
}
