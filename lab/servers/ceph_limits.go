package servers

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Limit gives a bucket a quota in bytes.
func (c *Ceph) Limit(ctx context.Context, bucket string, bytes int64) error {
	for _, args := range [][]string{{"set", "--max-size=" + strconv.FormatInt(bytes, 10)}, {"enable"}} {
		args = append([]string{"radosgw-admin", "-c", c.path("etc/ceph.conf"), "-n", "client.rgw.a", "quota"}, args...)
		if err := command(ctx, nil, append(args, "--quota-scope=bucket", "--bucket="+bucket)...); err != nil {
			return fmt.Errorf("quota of bucket %s: %w", bucket, err)
		}
	}
	return nil
}

// Expire gives a bucket lifecycle rules.
func (c *Ceph) Expire(ctx context.Context, bucket string, rules ...types.LifecycleRule) error {
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(c.Endpoint), Region: c.Region, UsePathStyle: true, HTTPClient: &http.Client{},
		Credentials:                credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired, // RGW before 18 does not understand the others
	})
	_, err := client.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{Bucket: &bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: rules}})
	if err != nil {
		return fmt.Errorf("lifecycle of bucket %s: %w", bucket, err)
	}
	return nil
}
