/* Signs times signs: the patch of a position is gathered once for all output channels. */
static void $name(const uint32_t *x, const uint32_t *weight, $y *y, const struct conv_shape *s,
                  int32_t rows, int32_t groups, uint32_t *patch, uint32_t *inside)
{
    const int32_t columns = s->channels * s->size_h * s->size_w, width = (columns + 31) / 32;
    const int32_t positions = s->out_h * s->out_w;
    for (int32_t g = 0; g < groups; g++) {
        for (int32_t p = 0; p < positions; p++) {
            gather_patch(x, s, g * s->channels, p, patch, inside);
            for (int32_t r = g * (rows / groups); r < (g + 1) * (rows / groups); r++) {
                const uint32_t *row = weight + r * width;
                y[r * positions + p] = ($y)$product;
            }
        }
    }
}
