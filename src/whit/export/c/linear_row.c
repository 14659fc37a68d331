/* One output of a matrix at every position. */
static void $name(const $x *x, const $w *weight, $y *y, int32_t positions, int32_t columns,
                  int32_t rows)
{
    for (int32_t p = 0; p < positions; p++) {
        $sum sum = 0;
        for (int32_t k = 0; k < columns; k++) {
            sum += ($sum)x[p * columns + k] * ($sum)weight[k];
        }
        y[p * rows] = ($y)sum;
    }
}
