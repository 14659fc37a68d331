/* 1 / (1 + e^-x) without overflow. */
static float sigmoid(float x)
{
    const float small = expf(x < 0 ? x : -x);
    return (x < 0 ? small : 1.0f) / (1.0f + small);
}
