package objectstore_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/objectstore"
	"transship/internal/objectstore/storetest"
)

func TestThrottledIsAStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) objectstore.Store {
		return objectstore.Throttled(&storetest.Memory{}, objectstore.NewLimits(0, 0))
	})
}

func TestBandwidthHoldsForBothWays(t *testing.T) {
	const size = 500_000
	store := objectstore.Throttled(&storetest.Memory{}, objectstore.NewLimits(1_000_000, 0))
	begun := time.Now()
	_, err := store.Put(t.Context(), "x", bytes.NewReader(make([]byte, size)), size, objectstore.PutOptions{})
	require.NoError(t, err)
	body, _, err := store.Get(t.Context(), "x", objectstore.ReadOptions{})
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, body)
	require.NoError(t, err)
	assert.InDelta(t, 3, time.Since(begun).Seconds(), 2.3, "a megabyte at a megabyte per second takes at least 0.7 s; the machine may be busy")
}

func TestNewBoundsHoldForWhatIsUnderWay(t *testing.T) {
	limits := objectstore.NewLimits(1, 1)
	store := objectstore.Throttled(&storetest.Memory{}, limits)
	var wait sync.WaitGroup
	begun := time.Now()
	for range 5 {
		wait.Go(func() {
			_, err := store.Put(t.Context(), "x", strings.NewReader(strings.Repeat("x", 200_000)), 200_000, objectstore.PutOptions{})
			assert.NoError(t, err)
		})
	}
	time.Sleep(200 * time.Millisecond)
	limits.SetBandwidth(0)
	limits.SetRequests(0)
	wait.Wait()
	assert.Less(t, time.Since(begun), 10*time.Second)
	limits.SetBandwidth(1)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := store.Put(ctx, "y", strings.NewReader(strings.Repeat("x", 200_000)), 200_000, objectstore.PutOptions{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestRequestsAreCounted(t *testing.T) {
	memory := &storetest.Memory{}
	for i := range 2500 {
		memory.PutString(strings.Repeat("k", i+1), "")
	}
	limits := objectstore.NewLimits(0, 10)
	store := objectstore.Throttled(memory, limits)
	begun := time.Now()
	for range 4 {
		_, err := store.Stat(t.Context(), "k", objectstore.ReadOptions{})
		require.NoError(t, err)
	}
	for range 3 { // of three pages each
		for _, err := range store.List(t.Context(), objectstore.ListOptions{}) {
			require.NoError(t, err)
		}
	}
	assert.InDelta(t, 3, time.Since(begun).Seconds(), 2.1, "13 requests at 10 per second take at least 0.9 s; the machine may be busy")
}

func TestThrottledKeepsSegments(t *testing.T) {
	_, segmented := objectstore.Throttled(&storetest.Memory{}, objectstore.NewLimits(0, 0)).(objectstore.Segmented)
	assert.True(t, segmented)
	folder, err := objectstore.NewFilesystem(objectstore.FilesystemOptions{Path: t.TempDir()})
	require.NoError(t, err)
	_, segmented = objectstore.Throttled(folder, objectstore.NewLimits(0, 0)).(objectstore.Segmented)
	assert.False(t, segmented)
}
