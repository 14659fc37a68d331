/* The signs under the kernel at one position and, if asked, a bit for each tap inside. */
static void gather_patch(const uint32_t *x, const struct conv_shape *s, int32_t channel,
                         int32_t position, uint32_t *patch, uint32_t *inside)
{
    const int32_t top = position / s->out_w * s->stride_h - s->pad_h;
    const int32_t left = position % s->out_w * s->stride_w - s->pad_w;
    int32_t tap = 0;
    for (int32_t c = channel; c < channel + s->channels; c++) {
        for (int32_t ky = 0; ky < s->size_h; ky++) {
            const int32_t iy = top + ky * s->dilation;
            for (int32_t kx = 0; kx < s->size_w; kx++, tap++) {
                const int32_t ix = left + kx * s->dilation;
                const int in_image = iy >= 0 && iy < s->height && ix >= 0 && ix < s->width;
                if (in_image) {
                    put_sign(patch, tap, sign_bit(x, (c * s->height + iy) * s->width + ix));
                } else {
                    put_sign(patch, tap, s->pad_value < 0);
                }
                if (inside != 0) {
                    put_sign(inside, tap, (uint32_t)in_image);
                }
            }
        }
    }
}
