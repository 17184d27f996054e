package registry

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHoldbackPassesAllAndHoldsTheLastByteOfABadBlob(t *testing.T) {
	for _, size := range []int{0, 1, 2, 3, 1000} {
		for _, buffer := range []int{1, 2, 3, 512} {
			want := randomBytes(size)
			timer := time.NewTimer(time.Hour)
			got, err := readWith(&holdback{from: strings.NewReader(string(want)), stall: timer}, buffer)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got), "%d by %d", size, buffer)
			bad := errors.New("bad")
			got, err = readWith(&holdback{from: io.MultiReader(strings.NewReader(string(want)), badReader{bad}), stall: timer}, buffer)
			require.ErrorIs(t, err, bad)
			require.Len(t, got, max(size-1, 0), "%d by %d", size, buffer)
		}
	}
}

type badReader struct{ err error }

func (b badReader) Read([]byte) (int, error) { return 0, b.err }

func readWith(r io.Reader, buffer int) (all []byte, err error) {
	p := make([]byte, buffer)
	for {
		n, err := r.Read(p)
		all = append(all, p[:n]...)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}
