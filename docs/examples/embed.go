// From the generated stubs: an embedding and its receipt. Generate first, next to a go.mod of yours:
//   buf generate protos --template '{"version":"v2","plugins":[{"local":"protoc-gen-go","out":"gen"},{"local":"protoc-gen-go-grpc","out":"gen"}],
//     "managed":{"enabled":true,"override":[{"file_option":"go_package_prefix","value":"example/gen"}]}}'
// then `make up` here and `go run embed.go` there.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	routerv1 "example/gen/penstock/api/router/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

func from(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func main() {
	connection, err := grpc.NewClient(from("PENSTOCK_ADDRESS", "127.0.0.1:7070"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+from("PENSTOCK_KEY", "psk-development"))
	answer, err := routerv1.NewRouterServiceClient(connection).Embed(ctx, &routerv1.EmbedRequest{Texts: []string{"where is my order"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(answer.Embeddings[0].Values), "values;", answer.Receipt.TotalMs, "ms; trace", answer.Receipt.TraceId)
}
