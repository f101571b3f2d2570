// What the tests use of mendhak/http-https-echo: answers with the request as JSON, and logs it.
import http from "node:http";

http
  .createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const delay = Number(new URL(request.url, "http://echo").searchParams.get("x-set-response-delay-ms") ?? 0);
      const seen = {
        path: request.url,
        headers: request.headers,
        method: request.method,
        body: Buffer.concat(chunks).toString(),
      };
      if (request.method === "POST") console.log(JSON.stringify(seen));
      setTimeout(() => {
        response.setHeader("content-type", "application/json");
        response.end(JSON.stringify(seen));
      }, delay);
    });
  })
  .listen(Number(process.env.HTTP_PORT ?? 8080));
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));
