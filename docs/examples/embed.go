// An embedding and its receipt, by generated stubs.
//
// In a folder of yours, where PROTOS names the protos/ of this repository, with protoc-gen-go and
// protoc-gen-go-grpc (both by `go install`) on the path:
//
//	go mod init example && go get google.golang.org/grpc
//	npx @bufbuild/buf generate $PROTOS --template '{"version":"v2","plugins":[
//	  {"local":"protoc-gen-go","out":"gen","opt":"paths=source_relative"},
//	  {"local":"protoc-gen-go-grpc","out":"gen","opt":"paths=source_relative"}],
//	  "managed":{"enabled":true,"override":[
//	    {"file_option":"go_package_prefix","value":"example/gen"}]}}'
//
// Then `make up` here and `go run embed.go` there.
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

func environment(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

func main() {
	address := environment("PENSTOCK_ADDRESS", "127.0.0.1:7070")
	key := environment("PENSTOCK_KEY", "psk-development")
	credentials := grpc.WithTransportCredentials(insecure.NewCredentials())
	connection, err := grpc.NewClient(address, credentials)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
	router := routerv1.NewRouterServiceClient(connection)
	answer, err := router.Embed(ctx, &routerv1.EmbedRequest{
		Texts:   []string{"where is my order"},
		Options: &routerv1.CallOptions{RunId: "example", Step: "1"},
	})
	if err != nil {
		log.Fatal(err)
	}

	receipt := answer.GetReceipt()
	instance := receipt.GetRoute().GetInstanceId()
	if instance == "" {
		instance = "the cache"
	}
	fmt.Println(len(answer.GetEmbeddings()[0].GetValues()), "values from", instance)
	fmt.Printf(
		"%.1f ms, %d micro-dollars, trace %s\n",
		receipt.GetTotalMs(), receipt.GetCost().GetPaidMicrousd(), receipt.GetTraceId(),
	)
}
