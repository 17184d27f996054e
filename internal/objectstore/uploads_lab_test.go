//go:build lab

package objectstore

import (
	"bytes"
	"io"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// meanwhile is a body during whose reading something happens.
func meanwhile(body io.Reader, n int64, happens func()) io.Reader {
	return io.MultiReader(io.LimitReader(body, n), &event{happens}, body)
}

type event struct{ happens func() }

func (e *event) Read([]byte) (int, error) {
	e.happens()
	return 0, io.EOF
}

func TestAnUploadThatAColleagueCompletes(t *testing.T) {
	const size = 120 << 20
	s := labS3(t)
	want, err := s.Put(t.Context(), "same", chacha(size, 1), size, PutOptions{})
	require.NoError(t, err)
	stored, err := s.Put(t.Context(), "blob", meanwhile(chacha(size, 1), 90<<20, func() {
		_, err := s.Put(t.Context(), "blob", chacha(size, 1), size, PutOptions{})
		assert.NoError(t, err)
	}), size, PutOptions{})
	require.NoError(t, err)
	assert.Equal(t, want.ETag, stored.ETag)
	object, err := s.Stat(t.Context(), "blob", ReadOptions{})
	require.NoError(t, err)
	assert.Equal(t, want.ETag, object.ETag)
}

func TestAnUploadThatSomebodyAborts(t *testing.T) {
	const size = 120 << 20
	s := labS3(t)
	_, err := s.Put(t.Context(), "blob", meanwhile(chacha(size, 1), 90<<20, func() {
		for _, upload := range uploads(t, s) {
			_, err := s.client.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: &s.o.Bucket, Key: upload.Key, UploadId: upload.UploadId})
			assert.NoError(t, err)
		}
	}), size, PutOptions{})
	require.ErrorContains(t, err, "somebody else ended the upload")
	assert.False(t, IsFinal(err))
	_, err = s.Stat(t.Context(), "blob", ReadOptions{})
	require.ErrorIs(t, err, ErrNotExist)
}

func uploads(t *testing.T, s *S3) []types.MultipartUpload {
	t.Helper()
	out, err := s.client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &s.o.Bucket})
	require.NoError(t, err)
	return out.Uploads
}

func TestBadBodiesLeaveNoUploads(t *testing.T) {
	s := labS3(t)
	_, err := s.Put(t.Context(), "blob", chacha(50<<20, 1), 60<<20, PutOptions{})
	var short *SizeError
	require.ErrorAs(t, err, &short)
	assert.Empty(t, uploads(t, s))
}

// TestARegistrysUploadIsLeftAlone has a registry that moves the same blob to the same key.
func TestARegistrysUploadIsLeftAlone(t *testing.T) {
	const size, theirs = 60 << 20, 32 << 20
	s := labS3(t)
	key := aws.String(s.o.Root + "blob")
	begun, err := s.client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &s.o.Bucket, Key: key})
	require.NoError(t, err)
	content, err := io.ReadAll(chacha(size, 1))
	require.NoError(t, err)
	var parts []types.CompletedPart
	send := func(n int32, piece []byte) {
		sent, err := s.client.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: &s.o.Bucket, Key: key, UploadId: begun.UploadId, PartNumber: &n, Body: bytes.NewReader(piece)})
		require.NoError(t, err)
		parts = append(parts, types.CompletedPart{PartNumber: &n, ETag: sent.ETag})
	}
	send(1, content[:theirs])
	_, err = s.Put(t.Context(), "blob", bytes.NewReader(content), size, PutOptions{})
	require.NoError(t, err)
	send(2, content[theirs:])
	_, err = s.client.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{Bucket: &s.o.Bucket, Key: key, UploadId: begun.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
	require.NoError(t, err)
	object, err := s.Stat(t.Context(), "blob", ReadOptions{})
	require.NoError(t, err)
	assert.Equal(t, int64(size), object.Size)
}
