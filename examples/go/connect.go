package main

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// connect returns a connection in plain text. With TLS: credentials.NewClientTLSFromFile("ca.pem", "").
func connect(server string) (*grpc.ClientConn, error) {
	return grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
}
