package objectstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Expiring lists the rules by which a store deletes objects of ours by itself, in words. Only S3 has such.
func Expiring(ctx context.Context, store Store) ([]string, error) {
	s, ok := beneath(store).(*S3)
	if !ok {
		return nil, nil
	}
	var out *s3.GetBucketLifecycleConfigurationOutput
	err := s.try(ctx, "lifecycle", "", func() (err error) {
		out, err = s.client.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &s.o.Bucket})
		return err
	})
	var answered *StatusError
	if errors.As(err, &answered) && answered.Status == http.StatusNotFound {
		return nil, nil // NoSuchLifecycleConfiguration
	}
	if err != nil {
		return nil, err
	}
	var rules []string
	for _, r := range out.Rules {
		prefix := prefixOf(r)
		if r.Status != types.ExpirationStatusEnabled || r.Expiration == nil || !strings.HasPrefix(prefix, s.o.Root) && !strings.HasPrefix(s.o.Root, prefix) {
			continue
		}
		when := fmt.Sprintf("%d days after they were written", aws.ToInt32(r.Expiration.Days))
		if r.Expiration.Date != nil {
			when = "on " + r.Expiration.Date.Format("2006-01-02")
		} else if r.Expiration.Days == nil {
			continue // only markers of deletions go
		}
		rules = append(rules, fmt.Sprintf("rule %q of bucket %s deletes objects below %q %s", aws.ToString(r.ID), s.o.Bucket, prefix, when))
	}
	return rules, nil
}

// prefixOf is what a rule is for. What else it asks for, such as tags, our objects may have or not.
func prefixOf(r types.LifecycleRule) string {
	if r.Filter == nil {
		//lint:ignore SA1019 rules of that form are still in buckets
		return aws.ToString(r.Prefix)
	}
	if r.Filter.And != nil {
		return aws.ToString(r.Filter.And.Prefix)
	}
	return aws.ToString(r.Filter.Prefix)
}
