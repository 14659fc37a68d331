// What the files of the chain share.
#ifndef WHIT_CHAIN_JOB_H
#define WHIT_CHAIN_JOB_H

#include "chain.h"

namespace whit {

// One call of a chain: the problem is cut into samples x tiles x blocks of columns.
struct Chain::Job {
    const Chain *chain;
    Frame *frame;
    Call *call;
    const uint8_t *source;
    uint8_t *result;
    size_t problems, height;             // final rows of one problem
    size_t tiles_h, tiles_w, blocks, block_columns;
};

// Rows of the product in one tile, and the columns of one block.
struct Chain::Tile {
    size_t problem;
    size_t y, x;                    // first final row and column
    size_t final_height, final_width;
    size_t height, width;           // now: shrinks with every pool
    size_t pooled_h, pooled_w;      // pools still to come
    size_t first, count;            // columns

    size_t rows() const { return height * width; }
};

}  // namespace whit

#endif  // WHIT_CHAIN_JOB_H
