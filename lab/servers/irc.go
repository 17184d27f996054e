package servers

import (
	"context"
	"fmt"
	"path/filepath"
)

// IRC is a running IRC server.
type IRC struct {
	// Address is host:port; there is no password and no TLS.
	Address string
	*Process
}

// StartIRC starts an IRC server below dir.
func StartIRC(ctx context.Context, dir string) (*IRC, error) {
	if err := present(map[string]string{"ngircd": "ngircd"}); err != nil {
		return nil, err
	}
	free, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	if err := makeDirs(dir, "log"); err != nil {
		return nil, fmt.Errorf("start the IRC server: %w", err)
	}
	// It asks nobody about its clients, and lets them send as fast as a test does.
	config := fmt.Sprintf(`[Global]
Name = irc.lab
Info = transship lab
AdminInfo1 = transship lab
Listen = 127.0.0.1
Ports = %s
MotdPhrase = "transship lab"
ServerUID = %s
[Limits]
MaxConnectionsIP = 0
MaxPenaltyTime = 0
[Options]
DNS = no
Ident = no
PAM = no
IncludeDir =
`, port(free[0]), me())
	if err := writeFiles(dir, map[string]string{"ngircd.conf": config}); err != nil {
		return nil, fmt.Errorf("start the IRC server: %w", err)
	}
	i := &IRC{Address: free[0], Process: &Process{
		Name: "ngircd", Args: []string{"ngircd", "-n", "-f", filepath.Join(dir, "ngircd.conf")},
		Log: filepath.Join(dir, "log/ngircd.log"), Ready: Answers(free[0]),
	}}
	return i, i.Start(ctx)
}
