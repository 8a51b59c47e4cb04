package counting

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestProxy(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		io.WriteString(w, strings.Repeat("x", int(n)/2))
	}))
	defer s.Close()
	p, err := Start(strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for range 3 {
		resp, err := client.Post("http://"+p.Host, "text/plain",
			strings.NewReader(strings.Repeat("y", 100_000)))
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(resp.Body); err != nil || len(data) != 50_000 {
			t.Errorf("%d bytes, error %v", len(data), err)
		}
		resp.Body.Close()
	}
	got := p.Counts()
	if got.Requests != 3 || got.Sent < 300_000 || got.Sent > 301_000 || got.Received < 150_000 ||
		got.Received > 151_000 {
		t.Errorf("counted %+v", got)
	}
	if got := p.Counts(); got != (Counts{}) {
		t.Errorf("the second time: %+v", got)
	}
}
