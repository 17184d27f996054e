//go:build lab

package objectstore_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/ncw/swift/v2"
	"github.com/stretchr/testify/require"

	"transship/internal/objectstore"
	"transship/lab/servers/shared"
)

func TestTheRoomOfACephBucketIsItsQuota(t *testing.T) {
	lab := shared.Shared(t)
	bucket := lab.NewBucket(t)
	store, err := objectstore.NewS3(t.Context(), objectstore.S3Options{Endpoint: lab.Ceph.Endpoint, Region: lab.Ceph.Region, AccessKey: lab.Ceph.AccessKey,
		SecretKey: lab.Ceph.SecretKey, Bucket: bucket, Root: "docker/registry/v2/"})
	require.NoError(t, err)
	room, err := objectstore.RoomOf(t.Context(), objectstore.Throttled(store, objectstore.NewLimits(1<<30, 1000)))
	require.NoError(t, err)
	require.False(t, room.Known, "without a quota nobody knows: %+v", room)

	require.NoError(t, lab.Ceph.Limit(t.Context(), bucket, 1_000_000))
	_, err = store.Put(t.Context(), "blobs/x", strings.NewReader(strings.Repeat("x", 1000)), 1000, objectstore.PutOptions{})
	require.NoError(t, err)
	room, err = objectstore.RoomOf(t.Context(), store)
	require.NoError(t, err)
	require.True(t, room.Known, "%+v", room)
	require.InDelta(t, 999_000, room.Bytes, 1024, "the gateway counts quotas in KiB")
	require.Contains(t, room.Says, "the quota of bucket "+bucket)
}

func TestRulesThatExpireABucketAreNamed(t *testing.T) {
	lab := shared.Shared(t)
	bucket := lab.NewBucket(t)
	store, err := objectstore.NewS3(t.Context(), objectstore.S3Options{Endpoint: lab.Ceph.Endpoint, Region: lab.Ceph.Region, AccessKey: lab.Ceph.AccessKey,
		SecretKey: lab.Ceph.SecretKey, Bucket: bucket, Root: "docker/registry/v2/"})
	require.NoError(t, err)
	rules, err := objectstore.Expiring(t.Context(), store)
	require.NoError(t, err)
	require.Empty(t, rules)
	rule := func(id, prefix string, status types.ExpirationStatus) types.LifecycleRule {
		return types.LifecycleRule{ID: aws.String(id), Status: status, Filter: &types.LifecycleRuleFilter{Prefix: aws.String(prefix)}, Expiration: &types.LifecycleExpiration{Days: aws.Int32(30)}}
	}
	require.NoError(t, lab.Ceph.Expire(t.Context(), bucket,
		rule("all", "", types.ExpirationStatusEnabled), rule("off", "docker/", types.ExpirationStatusDisabled), rule("others", "backup/", types.ExpirationStatusEnabled),
		types.LifecycleRule{ID: aws.String("uploads"), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String("docker/registry/")}, AbortIncompleteMultipartUpload: &types.AbortIncompleteMultipartUpload{DaysAfterInitiation: aws.Int32(7)}}))
	rules, err = objectstore.Expiring(t.Context(), store)
	require.NoError(t, err)
	require.Equal(t, []string{`rule "all" of bucket ` + bucket + ` deletes objects below "" 30 days after they were written`}, rules)
}

func TestTheRoomOfASwiftContainerIsTheSmallestQuota(t *testing.T) {
	lab := shared.Shared(t)
	container := lab.NewContainer(t)
	store, err := objectstore.NewSwift(t.Context(), objectstore.SwiftOptions{AuthURL: lab.Swift.AuthURL, Username: lab.Swift.Username, Password: lab.Swift.Password, Container: container, Root: "files/docker/registry/v2/"})
	require.NoError(t, err)
	room, err := objectstore.RoomOf(t.Context(), store)
	require.NoError(t, err)
	require.False(t, room.Known, "%+v", room)
	c := swift.Connection{AuthUrl: lab.Swift.AuthURL, AuthVersion: 1, UserName: lab.Swift.Username, ApiKey: lab.Swift.Password}
	require.NoError(t, c.Authenticate(t.Context()))
	require.NoError(t, c.ContainerUpdate(t.Context(), container, swift.Headers{"X-Container-Meta-Quota-Bytes": "5000"}))
	room, err = objectstore.RoomOf(t.Context(), store)
	require.NoError(t, err)
	require.True(t, room.Known)
	require.EqualValues(t, 5000, room.Bytes)
	require.Contains(t, room.Says, "the quota of container "+container)
}
