// Walking through the axes of a value.
#ifndef WHIT_AXES_H
#define WHIT_AXES_H

#include "values.h"

namespace whit {

// Strides of a shape, the last axis fastest.
inline void strides_of(const size_t *axes, size_t rank, size_t *strides) {
    size_t step = 1;
    for (size_t axis = rank; axis-- > 0;) {
        strides[axis] = step;
        step *= axes[axis];
    }
}

// Calls visit(offset) for all places of four axes in order, with any steps.
template <typename Visit>
void walk(const size_t (&axes)[4], const size_t (&steps)[4], Visit visit) {
    for (size_t a = 0; a < axes[0]; ++a)
        for (size_t b = 0; b < axes[1]; ++b)
            for (size_t c = 0; c < axes[2]; ++c) {
                const size_t base = a * steps[0] + b * steps[1] + c * steps[2];
                for (size_t d = 0; d < axes[3]; ++d) visit(base + d * steps[3]);
            }
}

inline void four_axes(const Shape &shape, size_t (&axes)[4]) {
    for (size_t axis = 0; axis < 4; ++axis) axes[axis] = axis < shape.rank ? shape.axes[axis] : 1;
}

}  // namespace whit

#endif  // WHIT_AXES_H
