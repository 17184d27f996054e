package gate

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/journal"
	"transship/internal/routing"
)

// site is a gate in front of two backends that remember what reached them, and a migration that is asked to carry.
type site struct {
	*Gate
	*httptest.Server

	mu      sync.Mutex
	reached []string
	carried []journal.Change
	ended   []routing.Upload
	narrow  []routing.Deletes
	// carry is what becomes of a request to carry.
	carry func(context.Context) error
}

func newSite(t *testing.T) *site {
	s := &site{carry: func(context.Context) error { return nil }}
	o := Options{RetryAfter: 3 * time.Second, Token: "secret", Backends: map[string]*url.URL{}}
	for _, name := range []string{"old", "new"} {
		backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			s.mu.Lock()
			s.reached = append(s.reached, name+" "+r.Method+" "+r.URL.RequestURI()+" "+string(body))
			s.mu.Unlock()
			w.WriteHeader(http.StatusCreated)
		}))
		t.Cleanup(backend.Close)
		o.Backends[name], _ = url.Parse(backend.URL)
	}
	o.Carry = func(ctx context.Context, _ routing.Prefix, from string, changes []journal.Change, ended []routing.Upload) error {
		assert.Equal(t, "old", from)
		s.mu.Lock()
		s.carried, s.ended = append(s.carried, changes...), append(s.ended, ended...)
		carry := s.carry
		s.mu.Unlock()
		return carry(ctx)
	}
	o.Narrow = func(_ routing.Prefix, d routing.Deletes) {
		s.mu.Lock()
		s.narrow = append(s.narrow, d)
		s.mu.Unlock()
		<-t.Context().Done() // the real one returns when every edge has heard, or it has given up
	}
	s.Gate = New(slog.New(slog.DiscardHandler), o)
	s.Server = httptest.NewServer(s.Gate)
	t.Cleanup(s.Close)
	return s
}

func (s *site) put(t *testing.T, path, body string) *http.Response {
	id := rand.Text()
	s.Gate.mu.Lock()
	s.writes[id] = Write{ID: id, Prefix: prefix, relayed: true} // as nginx was told to send it
	s.Gate.mu.Unlock()
	req, err := http.NewRequest(http.MethodPut, s.URL+"/relay/"+id+"/"+path, strings.NewReader(body))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func (s *site) seen() (reached []string, carried []journal.Change, ended []routing.Upload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.reached...), append([]journal.Change(nil), s.carried...), append([]routing.Upload(nil), s.ended...)
}

const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Promise 7, for uploads that outlast the freeze: the client hears of its blob only when the backend that serves has it.
func TestACommitOnTheBackendThatNoLongerServesIsAnsweredWhenItWasCarriedOver(t *testing.T) {
	s := newSite(t)
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old"})
	may := make(chan struct{})
	s.carry = func(context.Context) error { <-may; return nil }
	answer := make(chan int)
	go func() {
		answer <- s.put(t, "old/v2/restricted/x/blobs/uploads/u1?_state=a%2Bb&digest="+digest, "the rest").StatusCode
	}()
	select {
	case <-answer:
		t.Fatal("answered before the blob was where the manifest will go")
	case <-time.After(50 * time.Millisecond):
	}
	close(may)
	assert.Equal(t, http.StatusCreated, <-answer)
	reached, carried, _ := s.seen()
	assert.Equal(t, []string{"old PUT /v2/restricted/x/blobs/uploads/u1?_state=a%2Bb&digest=" + digest + " the rest"}, reached)
	assert.Equal(t, []journal.Change{{Kind: journal.Blob, Repository: "restricted/x", Reference: digest}}, carried)
}

func TestACommitThatCannotBeCarriedYetIsRefusedAndItsRepetitionIsNot(t *testing.T) {
	s := newSite(t)
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old"})
	s.carry = func(context.Context) error { return errors.New("Temporal is away") }
	path := "old/v2/restricted/x/blobs/uploads/u1?digest=" + digest
	refused := s.put(t, path, "")
	assert.Equal(t, http.StatusServiceUnavailable, refused.StatusCode)
	assert.Equal(t, "3", refused.Header.Get("Retry-After"))
	s.mu.Lock()
	s.carry = func(context.Context) error { return nil }
	s.mu.Unlock()
	again := s.put(t, path, "")
	assert.Equal(t, http.StatusCreated, again.StatusCode)
	assert.Equal(t, digest, again.Header.Get("Docker-Content-Digest"))
	reached, _, _ := s.seen()
	assert.Len(t, reached, 1, "the session is over: its registry would not know it")
}

func TestACommitInAFreezeThatIsGivenUpIsAnsweredAtOnce(t *testing.T) {
	s := newSite(t)
	s.Set(prefix, held(time.Minute))
	s.carry = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	answer := make(chan int)
	go func() {
		answer <- s.put(t, "old/v2/restricted/x/blobs/uploads/u1?digest="+digest, "").StatusCode
	}()
	require.Eventually(t, func() bool { _, carried, _ := s.seen(); return len(carried) == 1 }, 5*time.Second, time.Millisecond)
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "old", Other: "new"})
	assert.Equal(t, http.StatusCreated, <-answer)
}

// The migration was terminated in its freeze: nobody carries anything, and the hold ends by itself.
func TestACommitInAFreezeWhoseMigrationIsGoneWaitsForTheEndOfTheHold(t *testing.T) {
	s := newSite(t)
	s.Set(prefix, held(time.Minute))
	s.carry = func(context.Context) error { return errors.New("the migration is over") }
	answer := make(chan int)
	go func() {
		answer <- s.put(t, "old/v2/restricted/x/blobs/uploads/u1?digest="+digest, "").StatusCode
	}()
	require.Eventually(t, func() bool { _, carried, _ := s.seen(); return len(carried) > 1 }, 5*time.Second, time.Millisecond, "it is asked again")
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "old", Other: "new"})
	assert.Equal(t, http.StatusCreated, <-answer)
}

// A blob was being committed on the old backend when the freeze began, through any edge: what needs it waits, and nothing else does.
func TestAManifestWaitsForTheBlobThatItNeedsAndNoOtherDoes(t *testing.T) {
	s := newSite(t)
	late := routing.Upload{Repository: "restricted/x", Session: "u1", Commits: digest}
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old", Uploads: []routing.Upload{late}})
	path := "/v2/restricted/x/manifests/v1"
	assert.Equal(t, "relay", ask2(s, "a", path).Header().Get(HeaderVia))
	assert.Empty(t, ask2(s, "b", "/v2/restricted/other/manifests/v1").Header().Get(HeaderVia))

	manifest := func(d string) string {
		return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + d + `","size":1},"layers":[]}`
	}
	other := strings.Replace(digest, "e3", "e4", 1)
	assert.Equal(t, http.StatusCreated, s.put(t, "new"+path, manifest(other)).StatusCode)
	answer := make(chan int)
	go func() { answer <- s.put(t, "new"+path, manifest(digest)).StatusCode }()
	select {
	case <-answer:
		t.Fatal("the manifest did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	s.Ended(journal.Entry{ID: "c", At: time.Now(), Method: "PUT", Path: "/v2/restricted/x/blobs/uploads/u1", Query: "digest=" + digest, Status: 201, Backend: "old"})
	require.Eventually(t, func() bool { _, _, ended := s.seen(); return len(ended) == 1 && ended[0] == late }, 5*time.Second, time.Millisecond)
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old"})
	assert.Equal(t, http.StatusCreated, <-answer)
	_, carried, _ := s.seen()
	assert.Len(t, carried, 1)
}

// The commit ends after the drain's last look, and before the table comes that names it.
func TestACommitThatEndsBeforeTheTableNamesItIsSettledWhenItDoes(t *testing.T) {
	s := newSite(t)
	late := routing.Upload{Repository: "restricted/x", Session: "u1", Commits: digest}
	s.Set(prefix, held(time.Minute))
	s.Ended(journal.Entry{ID: "c", At: time.Now(), Method: "PUT", Path: "/v2/restricted/x/blobs/uploads/u1", Query: "digest=" + digest, Status: 201, Backend: "old"})
	s.Set(prefix, Rule{Mode: routing.Switched, Backend: "new", Other: "old", Hold: "h1", Deadline: time.Now().Add(time.Minute), Uploads: []routing.Upload{late}})
	require.Eventually(t, func() bool { _, _, ended := s.seen(); return len(ended) == 1 && ended[0] == late }, 5*time.Second, time.Millisecond)
}

func ask2(s *site, id, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/begin", nil)
	for k, v := range map[string]string{HeaderID: id, HeaderPrefix: string(prefix), HeaderMethod: "PUT", HeaderPath: path, HeaderToken: "secret"} {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestAnUploadWhoseNginxDiedIsSettled(t *testing.T) {
	s := newSite(t)
	s.Token = ""
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "old", Other: "new"})
	write("c", "PUT", "/v2/restricted/x/blobs/uploads/u1", "digest="+digest)(s.Gate, "/begin")
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old", Uploads: []routing.Upload{{Repository: "restricted/x", Session: "u1", Commits: digest}}})
	s.Reap(func(pid int) bool { return pid != 7 })
	require.Eventually(t, func() bool { _, carried, ended := s.seen(); return len(ended) == 1 && len(carried) == 1 }, 5*time.Second, time.Millisecond)
}

// Found by the model: a session of the table was taken for over because the nginx through which one of its requests went had died.
func TestASessionGoesOnWhenAnNginxDies(t *testing.T) {
	s := newSite(t)
	s.Token = ""
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old", Uploads: []routing.Upload{{Repository: "restricted/x", Session: "u1"}}})
	ask(s.Gate, "/begin", "p", "PATCH", "/v2/restricted/x/blobs/uploads/u1")
	s.Reap(func(pid int) bool { return pid != 7 })
	assert.Empty(t, s.InFlight(prefix))
	time.Sleep(50 * time.Millisecond) // settle has a goroutine of its own
	_, carried, ended := s.seen()
	assert.Empty(t, carried)
	assert.Empty(t, ended)
}

// Found by the model: the migration took a commit from the table between its end and its blob's arrival, and a manifest that needed it did not wait.
func TestACommitIsLateUntilItWasCarriedOver(t *testing.T) {
	s := newSite(t)
	arrives := make(chan struct{})
	s.carry = func(context.Context) error { <-arrives; return nil }
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old", Uploads: []routing.Upload{{Repository: "restricted/x", Session: "u1", Commits: digest}}})
	s.Ended(journal.Entry{ID: "c", At: time.Now(), Method: "PUT", Path: "/v2/restricted/x/blobs/uploads/u1", Query: "digest=" + digest, Status: 201, Backend: "old"})
	assert.Equal(t, 1, s.Late(prefix, 0))
	close(arrives)
	require.Eventually(t, func() bool { return s.Late(prefix, 0) == 0 }, 5*time.Second, time.Millisecond)
}

// Found by the model: a gate that had just started knew of no upload, and the migration took all from the table.
func TestAGateThatJustStartedTakesAllUploadsForLate(t *testing.T) {
	g := newGate()
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old", Uploads: []routing.Upload{{Repository: "restricted/x", Session: "u1"}}})
	assert.Equal(t, 1, g.Late(prefix, time.Minute))
	g.started = time.Now().Add(-time.Hour)
	assert.Equal(t, 0, g.Late(prefix, time.Minute))
}

// What a client deletes stays gone: the other backend may still have it, so nothing may be read from there any more.
func TestADeletionWaitsUntilTheOtherBackendIsNotReadAnyMore(t *testing.T) {
	s := newSite(t)
	s.Token = ""
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old", Scope: routing.Digests})
	path := "/v2/restricted/x/manifests/" + digest
	assert.Equal(t, http.StatusConflict, ask(s.Gate, "/begin", "d", "DELETE", path).Code)
	answer := asked(s.Gate, "/hold", "d", "DELETE", path)
	require.Eventually(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.narrow) == 1 }, 5*time.Second, time.Millisecond)
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old", Scope: routing.Blobs})
	w := <-answer
	assert.Equal(t, http.StatusNoContent, w.Code)
	assert.Equal(t, "new", w.Header().Get(HeaderBackend))
	assert.Equal(t, http.StatusNoContent, ask(s.Gate, "/begin", "e", "DELETE", path).Code, "the second one waits for nothing")
	assert.Equal(t, http.StatusConflict, ask(s.Gate, "/begin", "f", "DELETE", "/v2/restricted/x/blobs/"+digest).Code)
}

func TestTheGateAnswersOnlyItsNginx(t *testing.T) {
	s := newSite(t)
	s.Set(prefix, Rule{Mode: routing.Watched, Backend: "new"})
	assert.Equal(t, http.StatusNotFound, ask(s.Gate, "/begin", "a", "PUT", "/v2/restricted/x/manifests/v1").Code)
	resp, err := http.Get(s.URL + "/relay/guess/new/v2/restricted/x/manifests/v1")
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, http.StatusNotFound, resp.StatusCode)
	reached, _, _ := s.seen()
	assert.Empty(t, reached)
}
