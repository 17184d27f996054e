package mirror

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/distribution"
)

func TestPlanSaysWhatAMirrorWouldDo(t *testing.T) {
	w := newWorld()
	w.images()
	w.source.Tag("other", "v2", w.source.Image("other", nil, "base layer"))
	w.target.Tag("restricted/a", "extra", digest.FromString("something"))
	before := w.to.Keys()
	p, err := w.mirror().Plan(t.Context(), "restricted")
	require.NoError(t, err)
	assert.Equal(t, before, w.to.Keys(), "a plan changes nothing")
	assert.EqualValues(t, 6, p.Repositories)
	assert.EqualValues(t, 24, p.Tags)
	assert.Zero(t, p.TagsPresent)
	assert.Equal(t, []string{"restricted/a:extra"}, p.Extra)
	assert.EqualValues(t, len("base layer"), p.BytesShared)
	assert.Zero(t, p.BlobsPresent)
	assert.NotZero(t, p.Takes)
	assert.Equal(t, sampleSize, p.Sample)
	var blobs, bytes int64
	for _, key := range w.wanted() {
		content, _ := w.from.Content(key)
		if key[:6] == "blobs/" {
			blobs++
			bytes += int64(len(content))
		}
	}
	assert.Equal(t, blobs, p.Blobs)
	assert.Equal(t, bytes, p.Bytes)
	assert.EqualValues(t, len(w.wanted()), p.Objects)

	at := w.run(t)
	assert.Equal(t, p.Bytes, at.Progress.Bytes, "what was planned is what was sent")
	p, err = w.mirror().Plan(t.Context(), "restricted")
	require.NoError(t, err)
	assert.Equal(t, p.Objects, p.ObjectsPresent)
	assert.Equal(t, p.Bytes, p.BytesPresent)
	assert.Equal(t, p.Tags, p.TagsPresent)
	assert.Zero(t, p.Takes)
}

// Extra tags stop a migration, so a listing is not believed that one is missing at the source.
func TestAPlanAsksForATagThatTheListingOfTheSourceDoesNotShow(t *testing.T) {
	w := newWorld()
	w.images()
	w.run(t)
	w.target.Tag("restricted/a", "extra", digest.FromString("something"))
	m := w.mirror()
	m.From.Store = &lagging{Memory: w.from, hidden: func(key string) bool { return distribution.Parse(key).Tag == "v1" }}
	p, err := m.Plan(t.Context(), "restricted")
	require.NoError(t, err)
	assert.Equal(t, []string{"restricted/a:extra"}, p.Extra)
}

func TestEstimateTellsRequestsFromBytes(t *testing.T) {
	// 10 requests a second and 1 MB a second.
	took := estimate([2]float64{10, 10}, [2]float64{0, 10e6}, [2]float64{1, 11}, 100, 50e6)
	assert.InDelta(t, 60, took.Seconds(), 0.1)
	assert.Equal(t, 10*time.Second, estimate([2]float64{1, 0}, [2]float64{10, 0}, [2]float64{1, 0}, 10, 100))
}

// Without it, a sample of small blobs in a prefix with a few large ones foretells twenty minutes of what takes ten seconds.
func TestTheLargestBlobIsAlwaysInTheSample(t *testing.T) {
	for seed := range 50 {
		p := &planning{blobs: map[digest.Digest]*blobPlan{}}
		var missing []digest.Digest
		for i := range 200 {
			d := digest.FromString(fmt.Sprintf("%d of %d", i, seed))
			p.blobs[d] = &blobPlan{size: 100}
			missing = append(missing, d)
		}
		large := missing[seed]
		p.blobs[large].size = 200 << 20
		sample := p.some(missing)
		assert.Len(t, sample, sampleSize)
		assert.Equal(t, large, sample[sampleSize-1])
	}
}
