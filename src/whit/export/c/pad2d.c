/* Surround images of height x width: rows on top and below, columns left and right. */
static void $name(const $x *x, $x *y, const int32_t *shape, const int32_t *pads, $x value)
{
    const int32_t out_h = shape[1] + pads[0] + pads[2], out_w = shape[2] + pads[1] + pads[3];
    for (int32_t i = 0; i < shape[0] * out_h * out_w; i++) {
        const int32_t image = i / (out_h * out_w) * shape[1];
        const int32_t iy = i / out_w % out_h - pads[0], ix = i % out_w - pads[1];
        const int inside = iy >= 0 && iy < shape[1] && ix >= 0 && ix < shape[2];
        y[i] = inside ? x[(image + iy) * shape[2] + ix] : value;
    }
}
