/* min(max(x / 6 + 1 / 2, 0), 1). */
static float hardsigmoid(float x)
{
    const float line = x / 6.0f + 0.5f;
    return line < 0.0f ? 0.0f : line > 1.0f ? 1.0f : line;
}
