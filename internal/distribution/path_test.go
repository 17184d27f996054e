package distribution

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	someDigest = digest.FromString("some")
	longDigest = digest.SHA512.FromString("long")
)

func TestKeysAndTheirMeaningAreInverse(t *testing.T) {
	for _, d := range []digest.Digest{someDigest, longDigest} {
		for _, p := range []Path{
			{Kind: Blob, Digest: d},
			{Kind: Layer, Repository: "a/b", Digest: d},
			{Kind: Revision, Repository: "a", Digest: d},
			{Kind: Signature, Repository: "a", Of: someDigest, Digest: d},
			{Kind: TagCurrent, Repository: "a/b-c", Tag: "v1.0_x"},
			{Kind: TagIndex, Repository: "a/b-c", Tag: "v1", Digest: d},
		} {
			assert.Equal(t, p, Parse(p.Key()), p.Key())
		}
	}
}

func TestWhatDistributionDoesNotWriteIsUnknown(t *testing.T) {
	good := Path{Kind: Layer, Repository: "a", Digest: someDigest}.Key()
	for key, repository := range map[string]string{
		"": "", "readme": "", "blobs/sha256/ab": "", "repositories/": "", "repositories/a/b": "",
		"repositories/a/_layers/sha256/abc/link":   "a",
		good + "/more":                             "a",
		strings.Replace(good, "sha256", "md5", 1):  "a",
		strings.Replace(good, "/link", "/data", 1): "a",
		strings.Replace(good, someDigest.Encoded(), strings.ToUpper(someDigest.Encoded()), 1): "a",
		"repositories/a/_manifests/tags/v1/other/link":                                        "a",
		"repositories/a/_unheard/of":                                                          "a",
		"blobs/sha256/00/" + someDigest.Encoded() + "/data":                                   "",
	} {
		assert.Equal(t, Path{Repository: repository}, Parse(key), key)
	}
	assert.Equal(t, Path{Kind: Upload, Repository: "a"}, Parse("repositories/a/_uploads/1234/startedat"))
}

// The bounds that stand for "after all keys of this repository" rest on the byte order of the stores.
func TestPastIsAfterARepositoryAndBeforeAllOthers(t *testing.T) {
	for _, name := range []string{"a", "a/b", "a-b", "a.b", "a0"} {
		own := Path{Kind: TagIndex, Repository: name, Tag: "zzz", Digest: longDigest}.Key()
		assert.Less(t, Of(name), own)
		assert.Greater(t, Past(name), own)
		below := Path{Kind: Layer, Repository: name + "/a", Digest: someDigest}.Key()
		assert.Greater(t, below, Past(name), "a repository below it whose name begins with a letter comes after")
		digit := Path{Kind: Layer, Repository: name + "/0", Digest: someDigest}.Key()
		assert.Less(t, digit, Of(name), "and one that begins with a digit before")
	}
}

func TestAManifestSaysWhatItRefersTo(t *testing.T) {
	d := someDigest.String()
	for name, c := range map[string]struct {
		raw  string
		want Manifest
	}{
		"image": {`{"schemaVersion":2,"config":{"digest":"` + d + `","size":3},"layers":[{"digest":"` + longDigest.String() + `","size":5},{"digest":"` + d + `","size":3}]}`,
			Manifest{Blobs: []Reference{{someDigest, 3}, {longDigest, 5}}}},
		"foreign layers": {`{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"` + d + `","urls":["http://x"]}]}`, Manifest{}},
		"index":          {`{"schemaVersion":2,"manifests":[{"digest":"` + d + `","size":7}]}`, Manifest{Manifests: []Reference{{someDigest, 7}}}},
		"artifact":       {`{"schemaVersion":2,"blobs":[{"digest":"` + d + `","size":1}],"subject":{"digest":"` + longDigest.String() + `"}}`, Manifest{Blobs: []Reference{{someDigest, 1}}, Subject: longDigest}},
		"schema 1":       {`{"schemaVersion":1,"fsLayers":[{"blobSum":"` + d + `"},{"blobSum":"` + d + `"}]}`, Manifest{Blobs: []Reference{{someDigest, -1}}}},
	} {
		got, err := ParseManifest([]byte(c.raw))
		require.NoError(t, err, name)
		assert.Equal(t, c.want, got, name)
	}
	for _, raw := range []string{"", "{}", "[]", `{"schemaVersion":2,"config":{"digest":"sha256:short"}}`, `{"schemaVersion":2,"manifests":[{"digest":"../.."}]}`} {
		_, err := ParseManifest([]byte(raw))
		assert.Error(t, err, raw)
	}
}
