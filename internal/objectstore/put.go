package objectstore

import (
	"context"
	"errors"
)

// checksumTries is how often something is sent that the store then says it holds otherwise.
const checksumTries = 3

// verified makes attempts until the store holds what was sent. Damage on the way is rare and passes; a store that keeps on holding something else
// (one that encrypts, say) does not get better.
func (p patience) verified(ctx context.Context, attempt func() error) error {
	var err error
	for range checksumTries {
		err = attempt()
		var checksum *ChecksumError
		if !errors.As(err, &checksum) || !sleep(ctx, firstPause) {
			return err
		}
	}
	return err
}

// putWhole reads a body into memory, to its good end, and stores it by one request.
func putWhole(ctx context.Context, b *buffers, from *source, store func(content []byte, md5 string) (Object, error)) (Object, error) {
	held, err := b.lend(ctx, from.size)
	if err != nil {
		return Object{}, err
	}
	defer held.back()
	if err := held.fill(from); err != nil {
		return Object{}, err
	}
	if err := from.end(); err != nil {
		return Object{}, err
	}
	return store(held.bytes, held.md5())
}
