package sandbox

import (
	"bytes"
	"fmt"
	"math"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// blockSize is how many bytes of resources are compressed together: about seventy Observations.
	blockSize = 64 << 10
	// openBlocks is how many blocks stay decompressed, so that pages read in order cost one decompression a block.
	openBlocks = 16
)

// place says where in the vault a resource lies.
type place struct {
	block, offset, size uint32
}

// vault holds the bytes of resources compressed, so that a hundred thousand of them fit in some tens of megabytes.
// It only grows: a resource that changes is put again. It is safe for concurrent use.
type vault struct {
	mu     sync.Mutex
	enc    *zstd.Encoder
	dec    *zstd.Decoder
	sealed [][]byte // compressed blocks
	tail   []byte   // the block that is being filled, number len(sealed)
	open   map[uint32][]byte
	order  []uint32 // the blocks in open, the one opened longest ago first
}

func newVault() (*vault, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("building the compressor: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("building the decompressor: %w", err)
	}
	return &vault{enc: enc, dec: dec, open: map[uint32][]byte{}}, nil
}

// put keeps a copy of raw.
func (v *vault) put(raw []byte) (place, error) {
	if len(raw) > math.MaxUint32-blockSize {
		return place{}, fmt.Errorf("a resource of %d bytes is too large for the sandbox: at most 4 GB", len(raw))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	p := place{
		block:  uint32(len(v.sealed)), //nolint:gosec // G115: 2^32 blocks of 64 KiB are 256 TB
		offset: uint32(len(v.tail)),   //nolint:gosec // G115: the tail is below blockSize here
		size:   uint32(len(raw)),      //nolint:gosec // G115: checked above
	}
	v.tail = append(v.tail, raw...)
	if len(v.tail) >= blockSize {
		v.sealed = append(v.sealed, bytes.Clone(v.enc.EncodeAll(v.tail, nil)))
		v.tail = make([]byte, 0, blockSize+blockSize/4)
	}
	return p, nil
}

// get gives the bytes of a resource. The caller must not change them.
func (v *vault) get(p place) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	block, err := v.block(p.block)
	if err != nil {
		return nil, err
	}
	end := int(p.offset) + int(p.size)
	return block[p.offset:end:end], nil
}

func (v *vault) block(n uint32) ([]byte, error) {
	if int(n) == len(v.sealed) {
		return v.tail, nil
	}
	if b, ok := v.open[n]; ok {
		return b, nil
	}
	b, err := v.dec.DecodeAll(v.sealed[n], nil)
	if err != nil {
		return nil, fmt.Errorf("decompressing block %d of the sandbox's data: %w", n, err)
	}
	if len(v.order) >= openBlocks {
		delete(v.open, v.order[0])
		v.order = v.order[1:]
	}
	v.open[n] = b
	v.order = append(v.order, n)
	return b, nil
}
